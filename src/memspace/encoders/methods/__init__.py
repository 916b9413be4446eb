"""Methods that encoders are trained by, a file each; as they are imported they register themselves."""
