"""Looking into a network: its filters, its activations, and the images that excite it. Arrays alone."""
