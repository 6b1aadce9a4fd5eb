"""Networks trained on public images, as graphs for onnxruntime: weights by their hash, nothing unpickled."""
