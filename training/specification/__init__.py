"""The parts of a specification of fine-tuning, each a section of its YAML file."""
