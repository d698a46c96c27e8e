"""One file a data set; `datasets/parts` holds what several of them share.

A data set is found by its file name. Its summary in listings is the first line of its docstring, which is
read without importing the file.
"""
