"""Building the embedded emoji drawings from the packages of their vendors."""
