"""Lab scripts: measurements that the package's own benchmark cannot express, and the tables that they wrote."""
