"""Where a model can run: eager, torch.compile, ONNX Runtime, OpenVINO."""
