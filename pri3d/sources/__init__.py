"""What a scan is: `.sens` files, surfaces, folders of scans and the procedural demo."""
