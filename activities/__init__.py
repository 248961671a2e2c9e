"""Side effects: model calls, tools, compaction, rewinds. One module a kind; workflows import only names."""
