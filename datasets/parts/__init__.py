"""What several data sets share: readers, splits, digests."""
