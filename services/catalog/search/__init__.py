"""Finding products in the window: what is asked, which rows answer, in which order, and how many of what there are.

    asking       a question, and the tokens it is looked up by
    conditions   which rows answer it
    listing      a page of them in an order
    counting     how many there are, and the values to choose from
    correcting   what was meant, where nothing is found
    suggesting   what somebody who types may look for, and the tree of categories

All of it reads `search_rows`, which only what can be shipped now has.
"""
