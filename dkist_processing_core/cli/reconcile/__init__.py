"""The command about runs whose end no callback reported."""
