"""What keeps a utility's data private: secure sums, clipping and noise, and the account of what they spend."""
