"""The part of the SQL tracker that needs SQLAlchemy."""
