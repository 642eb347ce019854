"""The nouns of IntelligentScan, and its error tree; no input or output happens here."""
