"""What the sentences of an answer are held against, and on what they are judged."""
