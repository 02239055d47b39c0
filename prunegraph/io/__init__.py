"""Files: a pruned network as safetensors and JSON, without pickle."""
