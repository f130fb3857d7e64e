"""Published benchmarks, one file each: a class with a `name` in a module of this package can be named in recipes."""
