"""GraphFlow beside the methods that the paper compares it with."""
