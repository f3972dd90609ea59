"""Images from anywhere to one prepared set; and one image from a file to pixels."""
