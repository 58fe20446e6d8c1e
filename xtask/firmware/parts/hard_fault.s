@ The fault handler of an image that expects no fault: stay here for ever, where a debugger finds us.

    function hard_fault
    b       hard_fault
    end_function hard_fault
