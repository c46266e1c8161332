"""One public function a verb: what the command line does, for Python."""
