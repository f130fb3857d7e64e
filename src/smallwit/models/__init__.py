"""Models and tokenizers: Hugging Face in, Hugging Face out."""
