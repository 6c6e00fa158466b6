"""Networks from and for other toolkits: checkpoints and ONNX files go in, our models and ONNX of them come out."""
