"""PixelCNN and its successors."""
