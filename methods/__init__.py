"""One file a method; `methods/parts` holds what several of them share.

A method is found by its file name. Its summary in listings is the first line of its docstring, which is
read without importing the file.
"""
