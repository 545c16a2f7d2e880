package memory

func useSmallPages([]byte) {} // it has no others
