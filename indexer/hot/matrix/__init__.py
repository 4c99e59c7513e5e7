"""What a search of the hot tier looks at, on the CPU and on a device, and the scan itself."""
