"""Networks pre-trained on text, and how they cut it into pieces."""
