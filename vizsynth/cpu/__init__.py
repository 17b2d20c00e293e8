"""The fast arithmetic of networks on CPUs."""
