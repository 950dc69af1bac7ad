"""Gates: does the served model answer right, cold and under load, and can the claim be shown?"""
