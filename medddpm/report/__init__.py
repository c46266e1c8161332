"""Pages, pictures and figures about one scan or a group."""
