"""Models as tables: `tabulate`, and the rows that it draws."""

from linstock.linen._summary import Row as Row
from linstock.linen._summary import Table as Table
from linstock.linen._summary import tabulate as tabulate
