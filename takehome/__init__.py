"""What the programs in scripts/ share. It imports `helpers`; nothing in `helpers` imports it."""
