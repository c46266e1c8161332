"""Who is in a data set, and which groups are restored worse."""
