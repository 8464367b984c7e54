"""The two kinds of stores: a folder, and Milvus."""
