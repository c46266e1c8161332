"""The Brain Imaging Data Structure: names and side files of a derivative data set."""
