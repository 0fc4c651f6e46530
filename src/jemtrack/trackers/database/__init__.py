"""What needs SQLAlchemy: the tables of the SQL tracker and what is done with them."""
