"""Fine-tuning over HTTP, as OpenAI has it: asked for, run as a job, told of, and served."""
