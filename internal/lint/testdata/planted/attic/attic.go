package attic // want "is in no room"
