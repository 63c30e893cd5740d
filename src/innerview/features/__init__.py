"""What features mean: statistics, examples, words, labels. Plain data, no widgets."""
