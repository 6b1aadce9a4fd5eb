"""One file a network; the table of names is `fusionlearn.network.NETWORKS`."""
