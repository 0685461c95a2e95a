"""Step 3. Media to what the backbone perceives: a continuous encoder and a discrete codebook for each sense."""
