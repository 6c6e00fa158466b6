"""Networks from elsewhere: in goes a public checkpoint or an ONNX file, out comes a model or a vector of ours."""
