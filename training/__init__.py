"""Fine-tuning and classical training."""
