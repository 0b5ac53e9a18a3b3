"""Data to start a shop with: a product feed and a stock file, and the script that makes both."""
