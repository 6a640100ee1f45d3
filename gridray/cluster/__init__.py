"""Starting Ray and placing actor groups on its nodes."""
