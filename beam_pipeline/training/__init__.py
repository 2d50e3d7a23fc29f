"""Training: selectors learn from what people chose, students from the captions that selectors chose."""
