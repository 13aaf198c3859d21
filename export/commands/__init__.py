"""The commands of this layer: each parses its arguments, calls one public function and prints the result."""
