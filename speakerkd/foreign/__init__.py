"""Networks from elsewhere and for elsewhere: in go checkpoints and ONNX files, out come models of ours, and ONNX of them."""
