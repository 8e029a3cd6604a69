"""A registered model as ONNX, replayed beside the original."""
