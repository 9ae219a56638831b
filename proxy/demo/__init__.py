"""The demonstration: faithful doubles of three vendor APIs, and the transcript that is played against them."""
