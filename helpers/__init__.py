"""What the lessons share: profiles, memory estimates, loss curves, exercise checks and the doctor.

Nothing is imported here, so ``import helpers`` is instant; import the module that you need.
"""
