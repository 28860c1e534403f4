"""The tar format: headers, members, damage, links; WebDataset samples and the rows they make."""
